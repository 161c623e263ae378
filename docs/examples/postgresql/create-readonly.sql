CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'
  CONNECTION LIMIT 10;
GRANT app_readonly TO "{{name}}" WITH INHERIT TRUE, SET FALSE;
