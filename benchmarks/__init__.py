"""What we measure against what users would pick instead."""
