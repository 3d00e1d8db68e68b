"""What every Tenfold package needs and no library gives ready-made.

Import the module you need: `cli`, `config`, `datasets`, `runs`, `compute`, `progress`, `report`,
`published`, `errors`. This file imports nothing, so that the `tenfold` command starts at once.
"""
