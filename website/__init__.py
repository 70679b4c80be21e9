"""What the site is built with, besides the pages in ``docs``: see ``mkdocs.yml``."""
