"""What a run leaves on disk, and how it is read again: the only room that knows its files and their formats."""
