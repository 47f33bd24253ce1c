-- ARGV: ID, whole and parts of the amount, and of what is required, 1 to reserve, max age,
-- refusal age, 1 to pass if the balance is unknown, 1 for a dry run; then for each budget its
-- field, and whole and parts of its limit.

local ADMITTED, NEEDS_READING, INSUFFICIENT, OVER_BUDGET, BUSY, UNAVAILABLE = 1, 2, 3, 4, 5, 6
local id, w, p = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local need_w, need_p = tonumber(ARGV[8]), tonumber(ARGV[9])
if less(need_w, need_p, w, p) then need_w, need_p = w, p end
local reserve, max_age, refusal_age = ARGV[10] == '1', tonumber(ARGV[11]), tonumber(ARGV[12])
local pass_unknown, dry = ARGV[13] == '1', ARGV[14] == '1'

if waits > 0 then return {number, epoch, waits, UNAVAILABLE} end

expire()
keep(now + IDLE_MEMORY)

local budgets, fields = {}, {}
for i = 15, #ARGV, 3 do
	budgets[#budgets + 1] = {field = ARGV[i], w = tonumber(ARGV[i + 1]), p = tonumber(ARGV[i + 2])}
	fields[#fields + 1] = ARGV[i]
end

-- The balance: what is available, its age (-1 if it is infinite), and what is unread.
local available_w, available_p, age, unread_w, unread_p = 0, 0, 0, 0, 0
if state.known then
	unread_w, unread_p = state.open_w, state.open_p
	for _, c in ipairs(state.closed) do unread_w, unread_p = add(unread_w, unread_p, c[2], c[3]) end
	available_w, available_p = sub(state.balance_w, state.balance_p, state.held_w, state.held_p)
	available_w, available_p = sub(available_w, available_p, unread_w, unread_p)
	age = math.max(0, now - state.read_at)
	if now - state.read_at < -CLOCK_SLACK then age = -1 end
end
local function older(limit) return age < 0 or age > limit end

local in_flight = 0
local over = {0, 0, 0, 0, 0, 0}

local function is_over_budget()
	local function exceeds(used_w, used_p, b)
		if w == 0 and p == 0 then return not less(used_w, used_p, b.w, b.p) end
		used_w, used_p = add(used_w, used_p, w, p)
		return less(b.w, b.p, used_w, used_p)
	end
	for i, b in ipairs(budgets) do
		local a = account(b.field)
		local ends = turn(a, b.field)
		local used_w, used_p = add(a.spent_w, a.spent_p, a.held_w, a.held_p)
		if exceeds(used_w, used_p, b) then
			local running = exceeds(a.spent_w, a.spent_p, b) and 0 or 1
			in_flight = (over[1] == 0 or in_flight == 1) and running or 0
			if ends > over[6] then over = {i, a.spent_w, a.spent_p, a.held_w, a.held_p, ends} end
		end
	end
	return over[1] > 0
end

local function by_balance()
	if not state.known or older(max_age) then return pass_unknown and ADMITTED or NEEDS_READING end
	if not less(available_w, available_p, need_w, need_p) then return ADMITTED end
	local without_w, without_p = add(available_w, available_p, state.held_w, state.held_p)
	in_flight = less(without_w, without_p, need_w, need_p) and 0 or 1
	if older(refusal_age) or unread_w > 0 or unread_p > 0 then return NEEDS_READING end
	return INSUFFICIENT
end

local function decide()
	if field_of('hold:' .. id) then return ADMITTED end
	if call('ZCARD', LEASES) >= MAX_HOLDS then return BUSY end
	if is_over_budget() then return OVER_BUDGET end
	if not reserve then return ADMITTED end
	return by_balance()
end

local outcome = decide()
local answer = {number, epoch, waits, outcome, state.known and 1 or 0, available_w, available_p, age, unread_w, unread_p, in_flight}
for _, n in ipairs(over) do answer[#answer + 1] = n end
if dry then
	for _, b in ipairs(budgets) do
		local a = account(b.field)
		local ends = turn(a, b.field)
		for _, n in ipairs({a.spent_w, a.spent_p, a.held_w, a.held_p, ends}) do answer[#answer + 1] = n end
	end
end
if outcome == ADMITTED and not dry then put(id, w, p, fields) end
save()
return answer
