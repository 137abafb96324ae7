"""The sections of the report page as values, one file each; report.html.j2 lays them out."""
