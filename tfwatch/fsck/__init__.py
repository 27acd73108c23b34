"""`tfwatch fsck`: hold the folders, the log, its chain, the index, the backups and the sheet against each other."""
