//! Runs the scripts of the differential floor against the broker at an address and writes its answers into a folder:
//! `keelson-differential 127.0.0.1:9092 tests/differential/recordings [family …]`.

use std::path::Path;

use anyhow::{Context, Result};
use keelson_tests::differential;
use keelson_tests::records::now_ms;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let address = words.next().context("an address")?;
    let folder = words.next().context("a folder")?;
    let families: Vec<String> = words.collect();
    let wanted = |family: &str| families.is_empty() || families.iter().any(|name| name == family);
    let run = format!("r{:x}", now_ms() / 100);
    let folder = Path::new(&folder);
    for (family, recording) in differential::run_scripts(&address, &run, wanted) {
        std::fs::write(folder.join(format!("{family}.txt")), recording.to_text())?;
        println!("{family}: {} answers", recording.iter().count());
    }
    std::fs::write(
        folder.join("versions.txt"),
        differential::advertised(&address),
    )?;
    Ok(())
}
