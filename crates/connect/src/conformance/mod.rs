//! The conformance suites: what every source and every sink must do, as tests that any implementation can call.
