-- The right itself stays with whoever has it: 0001 takes the sequence away, and nothing before this uses it.

DELETE FROM smarter_auth.runtime_privilege WHERE privilege = 'USAGE ON SEQUENCE smarter_auth.resource_id_seq';
