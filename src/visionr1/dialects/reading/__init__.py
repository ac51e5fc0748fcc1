"""Reading boxes out of text as models write it, whatever the dialect: loose JSON, tags, brackets, lines, prose."""
