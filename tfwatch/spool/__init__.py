"""The folders and what lies in them: who owns the paths, when a ZIP is finished, whether it is sound."""
