"""Examples in tar files, as webdataset lays them out: the members of an example follow one another, under one key."""
