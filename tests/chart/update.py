"""Rewrites what is generated in and beside the chart. Look at the difference before you commit it."""
import subprocess
import sys

import chart
import crds
import golden
import readme

subprocess.run([sys.executable, chart.ROOT / "charts" / "dashboards" / "generate.py"], check=True)
crds.update()
readme.README.write_text(readme.updated())
chart.GOLDEN.mkdir(exist_ok=True)
for stale in chart.GOLDEN.glob("*.yaml"):
    stale.unlink()
for case in chart.case_names():
    golden.path(case).write_text(golden.text(case))
