"""Runs one test case class that the program before it has defined. No future import: it stands in the middle."""

# ruff: noqa: T201 - the output is the report

import io
import sys
import unittest


def unittest_case(case: str) -> None:
    """Run all tests of the class named ``case`` in the main module; exits with 1 where one fails or there is none."""
    tests = unittest.TestLoader().loadTestsFromTestCase(getattr(sys.modules["__main__"], case))
    stream = io.StringIO()
    result = unittest.TextTestRunner(stream=stream).run(tests)
    if result.testsRun == 0 or not result.wasSuccessful():
        print(stream.getvalue()[-2000:])
        sys.exit(1)
