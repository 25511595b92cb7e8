"""What tests of programs, providers and stores stand on: fakes, a fault server, conformance suites."""
