"""One data model (`schema`); terminal, Markdown, HTML and JSON are views of it."""
