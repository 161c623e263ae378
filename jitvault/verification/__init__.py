"""Verify a receipt offline: without Vault, ledger or settings.

`verify` is the way in, and has the list of the checks. In all modules the receipt *states* something, an audit line
*shows* something, and a person or an issuer *signed* something; a problem is where two of these differ.
"""
