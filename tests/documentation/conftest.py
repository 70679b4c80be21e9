"""What is beside pages is theirs: it is no test, and imports what lies in their folders."""

collect_ignore = ["beside"]
