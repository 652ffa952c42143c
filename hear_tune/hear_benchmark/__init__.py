"""The HEAR benchmark by its own evaluation kit, ``heareval`` 2021.1.3: ``hear-tune hear``."""
