"""Runs the tests of the modules that are named, in as many processes as there are cores; name those with long tests first.

The cases are rendered once, before the processes fork. A class that sets something up stays in one process."""
import multiprocessing
import os
import sys
import time
import unittest

import chart


def tests(suite):
    for part in suite:
        yield from tests(part) if isinstance(part, unittest.TestSuite) else [part]


def units(names):
    """Lists of tests that run in one process."""
    found = {}
    for test in tests(unittest.defaultTestLoader.loadTestsFromNames(names)):
        alone = type(test).setUpClass.__func__ is unittest.TestCase.setUpClass.__func__
        found.setdefault(test if alone else type(test), []).append(test)
    return list(found.values())


def run(number):
    """What came of a unit: how many tests ran, what went wrong, and how long it took."""
    result, start = unittest.TestResult(), time.monotonic()
    unittest.TestSuite(UNITS[number]).run(result)
    wrong = [f"{test}\n{text}" for test, text in [*result.failures, *result.errors]]
    wrong += [f"{test}\nskipped, or passed though it should not" for test in [*(t for t, _ in result.skipped), *result.unexpectedSuccesses]]
    return number, result.testsRun, wrong, time.monotonic() - start


if __name__ == "__main__":
    started = time.monotonic()
    UNITS = units(sys.argv[1:])
    chart.case_objects("default")
    ran, failed = 0, []
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for number, count, wrong, seconds in pool.imap_unordered(run, range(len(UNITS))):
            print(f"{'FAILED' if wrong else 'ok':6} {seconds:5.1f} s  {', '.join(test.id() for test in UNITS[number])}", flush=True)
            ran, failed = ran + count, failed + wrong
    print(*(f"\n{text}" for text in failed), f"\n{ran} tests in {time.monotonic() - started:.1f} s, {len(failed)} failures", sep="")
    sys.exit(bool(failed) or ran != sum(map(len, UNITS)) or not ran)
