INSERT INTO notes (text) SELECT 'note number ' || number FROM generate_series(1, 20) AS number;
