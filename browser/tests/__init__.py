"""The back office as people use it. They run where there is a Chromium; where not, the run says so."""
