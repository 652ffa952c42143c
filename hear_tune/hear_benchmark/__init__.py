"""Run the HEAR benchmark with its evaluation kit, ``heareval`` 2021.1.3."""
