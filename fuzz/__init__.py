"""Coverage-guided fuzzers; see README.rst beside this file. No part of the distribution."""
