"""Trials that train in processes of their own: started, heard and ended."""
