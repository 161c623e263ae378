"""Try on a real role whether a template's access can be revoked."""
