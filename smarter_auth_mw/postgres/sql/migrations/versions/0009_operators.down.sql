DELETE FROM smarter_auth.privilege WHERE privilege LIKE '%operator%';

DROP FUNCTION smarter_auth.operator_by_token(bytea), smarter_auth.end_operator_tokens(bytea[], text, text);

DROP FUNCTION smarter_auth.open_operator_session(bytea, bytea), smarter_auth.operator_by_session(bytea);

DROP FUNCTION smarter_auth.end_operator_session(bytea), smarter_auth.end_operator_sessions(bytea);

DROP VIEW smarter_auth.living_operator;

DROP TABLE smarter_auth.operator_session;

DROP TABLE smarter_auth.operator_token;

DROP TABLE smarter_auth.operator;
