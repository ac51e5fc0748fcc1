"""Dialects that are written in tokens of their own: tags, and for some families the coordinates too; one file each."""
