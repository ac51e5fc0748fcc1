"""For people to look at: the page about a run, its charts, boxes drawn on images."""
