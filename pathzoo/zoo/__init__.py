"""The zoo: a trained model becomes a folder that says what it is, proves that it is whole, and loads without trust.

In the order of the flow: `publish` (with `run_record`, `config_rules`, `allowlist`, `golden`, `identifiers`, `card`)
writes a folder that `manifest` describes; `verify` (with `weights`) checks it; `find` and `load` bring it back.
"""
