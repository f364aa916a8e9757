"""Books, texts and tables of texts read into documents and rows."""
