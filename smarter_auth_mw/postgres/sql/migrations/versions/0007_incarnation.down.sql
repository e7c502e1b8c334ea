DROP TRIGGER commit_to_disk ON smarter_auth.change;

DROP FUNCTION smarter_auth.commit_to_disk();

DROP FUNCTION smarter_auth.name_incarnation(), smarter_auth.incarnation_now();

DROP TABLE smarter_auth.incarnation;

DELETE FROM smarter_auth.runtime_privilege WHERE privilege LIKE '%incarnation_now()%';
