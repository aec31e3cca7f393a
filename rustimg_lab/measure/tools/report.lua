-- For wrk: asks what its arguments say (METHOD [BODY]) and ends with what it counted, as one line of JSON.

function init(args)
   wrk.method = args[1]
   wrk.body = args[2]
   wrk.headers["Content-Type"] = "application/json"
end

function done(summary)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "duration_us": %d, "bytes": %d, "socket_errors": %d, "status_errors": %d}\n',
      summary.requests, summary.duration, summary.bytes,
      errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
