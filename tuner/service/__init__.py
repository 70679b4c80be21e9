"""Work on studies: create or resume them, train their trials, watch them, take back the lost."""
