-- ARGV: ID, the epoch of the hold, whole, parts, the word, whole and parts of the cost; then
-- the fields of the accounts.

local FREE, UNSAID, COSTS = 0, 1, 2
local id, hold_epoch, w, p = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local word, cost_w, cost_p = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

local running = remove(id) ~= nil
local late = call('ZREM', LAPSED, id) == 1
expire()
keep(now + IDLE_MEMORY)

local repeated, over_hold, needs_reading = 0, 0, 0
if not running and not late and hold_epoch >= epoch then
	repeated = 1
elseif word == COSTS then
	for _, field in ipairs(fields_from(12)) do
		local a = account_for(field)
		a.spent_w, a.spent_p = add_capped(a.spent_w, a.spent_p, cost_w, cost_p)
	end
	over_hold = less(w, p, cost_w, cost_p) and 1 or 0
	needs_reading = book(cost_w, cost_p)
elseif word == UNSAID then
	needs_reading = book(w, p)
end
save()
return {number, epoch, waits, repeated, over_hold, needs_reading}
