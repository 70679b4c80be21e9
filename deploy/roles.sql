-- Roles with no more rights than a worker and the dashboard need, on tuner's tables.
--
--   psql --file deploy/roles.sql DATABASE        as the owner of the tables; see docs/postgresql.md
--
-- Apply it after `tuner db upgrade`, at first and after each upgrade; it may run any number of times.
-- Passwords come from the variables worker_password and dashboard_password, where they are set.

\set ON_ERROR_STOP on
BEGIN;
SET LOCAL search_path = public, pg_temp;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['tuner_worker', 'tuner_dashboard']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
\if :{?worker_password}
ALTER ROLE tuner_worker PASSWORD :'worker_password';
\endif
\if :{?dashboard_password}
ALTER ROLE tuner_dashboard PASSWORD :'dashboard_password';
\endif

-- Nobody else gets in, and nobody but the owner makes tables.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC, tuner_worker, tuner_dashboard', current_database()),
       format('GRANT CONNECT ON DATABASE %I TO tuner_worker, tuner_dashboard', current_database())
\gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tuner_worker, tuner_dashboard;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, tuner_worker, tuner_dashboard;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, tuner_worker, tuner_dashboard;

-- Both read everything of Optuna's, and which version the tables are of.
GRANT SELECT ON
    studies, study_directions, study_user_attributes, study_system_attributes,
    trials, trial_params, trial_values, trial_intermediate_values,
    trial_user_attributes, trial_system_attributes, trial_heartbeats,
    version_info, alembic_version, tuner_alembic_version
TO tuner_worker, tuner_dashboard;

-- A worker starts trials, records how they go and ends them; it holds them under leases.
GRANT INSERT ON trials TO tuner_worker;
GRANT UPDATE (state, datetime_start, datetime_complete) ON trials TO tuner_worker;
GRANT INSERT, UPDATE ON
    trial_params, trial_values, trial_intermediate_values, trial_user_attributes
TO tuner_worker;
GRANT SELECT, INSERT, UPDATE ON tuner_workers, tuner_curves, tuner_plans TO tuner_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON tuner_leases TO tuner_worker;
GRANT SELECT, INSERT ON tuner_events TO tuner_worker;  -- the finalists of a confirmation are an event
-- To lock a study's row, PostgreSQL asks for the right to change one of its columns. An id cannot
-- be changed as long as anything refers to it, and a study always has attributes.
GRANT UPDATE (study_id) ON studies TO tuner_worker;
GRANT USAGE ON SEQUENCE
    trials_trial_id_seq, trial_params_param_id_seq, trial_values_trial_value_id_seq,
    trial_intermediate_values_trial_intermediate_value_id_seq,
    trial_user_attributes_trial_user_attribute_id_seq, tuner_events_event_id_seq,
    study_user_attributes_study_user_attribute_id_seq
TO tuner_worker;

-- Of a study's attributes, among them the code it names, a worker writes one: which of Optuna's
-- studies it is, once that has been renamed.
GRANT INSERT, UPDATE ON study_user_attributes TO tuner_worker;
ALTER TABLE study_user_attributes ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tuner_reads ON study_user_attributes;
CREATE POLICY tuner_reads ON study_user_attributes FOR SELECT USING (true);
DROP POLICY IF EXISTS tuner_worker_inserts ON study_user_attributes;
CREATE POLICY tuner_worker_inserts ON study_user_attributes FOR INSERT TO tuner_worker
    WITH CHECK (key = 'tuner:home');
DROP POLICY IF EXISTS tuner_worker_updates ON study_user_attributes;
CREATE POLICY tuner_worker_updates ON study_user_attributes FOR UPDATE TO tuner_worker
    USING (key = 'tuner:home') WITH CHECK (key = 'tuner:home');

-- What is over is over: nobody but the owner changes what is recorded of a trial that has ended, nor
-- records one as ended that was never trained. What the ending itself writes carries its transaction.
CREATE OR REPLACE FUNCTION public.tuner_refuse_ended() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner oid := (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID);
    touched int[];
    ended int;
BEGIN
    IF pg_catalog.pg_has_role(current_user, owner, 'USAGE') THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME = 'trials' THEN
        IF TG_OP = 'INSERT' AND NEW.state IN ('COMPLETE', 'PRUNED', 'FAIL')
           OR TG_OP = 'UPDATE' AND OLD.state IN ('COMPLETE', 'PRUNED', 'FAIL') THEN
            ended := NEW.trial_id;
        END IF;
    ELSIF TG_TABLE_NAME = 'tuner_curves' THEN
        SELECT t.trial_id INTO ended
        FROM public.study_user_attributes AS a JOIN public.trials AS t USING (study_id)
        WHERE a.key = 'tuner:uuid' AND t.state IN ('COMPLETE', 'PRUNED', 'FAIL')
          AND (a.value_json = format('"%s"', NEW.study_uuid) AND t.number = NEW.number
               OR TG_OP = 'UPDATE' AND a.value_json = format('"%s"', OLD.study_uuid)
                  AND t.number = OLD.number)
        LIMIT 1;
    ELSE
        touched := ARRAY[NEW.trial_id] || CASE WHEN TG_OP = 'UPDATE' THEN OLD.trial_id END;
        EXECUTE format(
            'SELECT t.trial_id FROM public.trials AS t WHERE t.trial_id = ANY ($1) '
            'AND t.state IN (''COMPLETE'', ''PRUNED'', ''FAIL'') AND NOT EXISTS ('
            'SELECT FROM %s AS r WHERE r.%I = $2 AND r.xmin = t.xmin) LIMIT 1',
            TG_RELID::regclass, TG_ARGV[0])
        INTO ended
        USING touched, (to_jsonb(NEW) ->> TG_ARGV[0])::int;
    END IF;
    IF ended IS NOT NULL THEN
        RAISE EXCEPTION 'you may not change a trial that is over (id %)', ended
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END
$$;
SELECT format('DROP TRIGGER IF EXISTS tuner_ended ON public.%I', name),
       format('CREATE TRIGGER tuner_ended AFTER INSERT OR UPDATE ON public.%I '
              'FOR EACH ROW EXECUTE FUNCTION public.tuner_refuse_ended(%L)', name, key)
FROM (VALUES
    ('trials', ''), ('tuner_curves', ''),
    ('trial_params', 'param_id'), ('trial_values', 'trial_value_id'),
    ('trial_intermediate_values', 'trial_intermediate_value_id'),
    ('trial_user_attributes', 'trial_user_attribute_id')
) AS tables (name, key)
\gexec

-- The dashboard reads, ours too for the answer above a study's note, and keeps the notes that people
-- write there. It reads the tokens of leases, but may write nothing under them.
GRANT SELECT ON
    tuner_workers, tuner_leases, tuner_events, tuner_plans, tuner_charges
TO tuner_dashboard;
GRANT INSERT, UPDATE ON study_system_attributes, trial_system_attributes TO tuner_dashboard;
GRANT USAGE ON SEQUENCE
    study_system_attributes_study_system_attribute_id_seq,
    trial_system_attributes_trial_system_attribute_id_seq
TO tuner_dashboard;

COMMIT;
