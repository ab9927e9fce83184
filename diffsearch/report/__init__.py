"""From a study's history to a report that a person reads: tables, figures, sentences, Markdown."""
