"""Jobs over many images: one part of a list, written as it comes, continued to the same bytes when interrupted."""
