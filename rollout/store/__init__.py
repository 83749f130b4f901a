"""The database: tables, migrations, reads, and the one door for writes. Rows never leave this folder."""
