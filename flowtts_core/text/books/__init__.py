"""Read books and texts into documents, and tables of texts into rows."""
