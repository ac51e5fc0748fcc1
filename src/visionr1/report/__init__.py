"""What a person looks at: the page about a run, its charts, boxes drawn on images."""
