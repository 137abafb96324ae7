"""One offline HTML page and one model card per run: `page.write_report`; importing this package loads nothing."""
