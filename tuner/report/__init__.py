"""A study's report in every format, and its winner as code."""
