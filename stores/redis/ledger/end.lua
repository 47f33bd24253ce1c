-- ARGV: epoch, number and time of the ticket, 1 if the balance is known, whole, parts.

local t_epoch, t_number, t_at = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

expire()
keep(now + IDLE_MEMORY)

if t_epoch == epoch and t_number > state.applied and t_number <= state.seq then
	state.applied, state.known, state.read_at = t_number, ARGV[8] == '1', t_at
	state.balance_w, state.balance_p = tonumber(ARGV[9]), tonumber(ARGV[10])
	while #state.closed > 0 and state.closed[1][1] <= t_number do table.remove(state.closed, 1) end
end
save()
return {number, epoch, waits}
