"""From the repository to a service on a board: one archive (``package``), its installer (``install.sh``), and the installer's checks."""
