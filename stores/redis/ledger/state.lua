-- The State of one user, as internal/spending has it in Go. Each script of this folder
-- begins with this text. A test compares the two with random operations.
--
-- KEYS: the shelf, the user's fields, the leases of the holds, the holds whose lease ran out.
-- ARGV: the time or an empty text, the newest number and the epoch that the gateway has seen
-- of the shelf, the lease; then what the script itself takes. Times are in milliseconds.
--
-- An amount is two numbers: whole units, and parts of 10^-12. Both are integers below 2^53,
-- where a double is exact.

local SHELF, USER, LEASES, LAPSED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local PARTS = 1000000000000
local MAX_WHOLE, MAX_PARTS = 999999999999999, PARTS - 1
local MAX_HOLDS, MAX_CLOSED = 4096, 5
local LAPSED_MEMORY, IDLE_MEMORY, CLOCK_SLACK = 3600000, 600000, 60000
local HOUR, DAY = 3600000, 86400000
local call, floor = redis.call, math.floor

local now = tonumber(ARGV[1])
if not now then
	local t = call('TIME')
	now = t[1] * 1000 + floor(t[2] / 1000)
end
local lease = tonumber(ARGV[4])

local function text(n) return string.format('%.0f', n) end

-- Amounts.

local function add(aw, ap, bw, bp)
	local w, p = aw + bw, ap + bp
	if p >= PARTS then w, p = w + 1, p - PARTS end
	return w, p
end

local function sub(aw, ap, bw, bp)
	local w, p = aw - bw, ap - bp
	if p < 0 then w, p = w - 1, p + PARTS end
	return w, p
end

local function less(aw, ap, bw, bp) return aw < bw or (aw == bw and ap < bp) end

local function add_capped(aw, ap, bw, bp)
	local w, p = add(aw, ap, bw, bp)
	if less(MAX_WHOLE, MAX_PARTS, w, p) then return MAX_WHOLE, MAX_PARTS end
	return w, p
end

-- The shelf. It holds the epoch of the ledger's data, a number that every call raises, and
-- until when the shelf waits. If this gateway has seen more than there is, data was lost:
-- a new epoch begins, and nothing is admitted for one lease, in which every gateway
-- reports its running requests.

local epoch, waits
local number = (function()
	local seen_number, seen_epoch = tonumber(ARGV[2]), tonumber(ARGV[3])
	local f = call('HMGET', SHELF, 'number', 'epoch', 'wait')
	local n, e, u = tonumber(f[1]) or 0, tonumber(f[2]) or 0, tonumber(f[3]) or 0
	if e == 0 or seen_epoch > e or (seen_epoch == e and seen_number > n) then
		u = 0
		if seen_epoch > 0 then u = now + lease end
		n, e = 0, math.max(now, e + 1, seen_epoch + 1)
	end
	u = math.min(u, now + lease) -- the clock may have been set back
	n = n + 1
	call('HSET', SHELF, 'number', text(n), 'epoch', text(e), 'wait', text(u))
	call('PEXPIRE', SHELF, DAY)
	epoch, waits = e, math.max(0, u - now)
	return n
end)()

-- The fields of the State.

local state = (function()
	local f = call('HMGET', USER, 'epoch', 'seq', 'applied', 'balance', 'read_at', 'held', 'open', 'closed', 'keep')
	local function amount(field)
		local w, p = string.match(field or '', '^(%-?%d+) (%d+)$')
		return tonumber(w) or 0, tonumber(p) or 0
	end
	local s = {
		seq = tonumber(f[2]) or now * 1000,
		applied = tonumber(f[3]) or now * 1000,
		known = f[4] and f[4] ~= '',
		read_at = tonumber(f[5]) or 0,
		closed = {},
		keep = tonumber(f[9]) or 0,
		accounts = {},
	}
	s.balance_w, s.balance_p = amount(f[4])
	s.held_w, s.held_p = amount(f[6])
	s.open_w, s.open_p = amount(f[7])
	for n, w, p in string.gmatch(f[8] or '', '(%d+) (%d+) (%d+)') do
		s.closed[#s.closed + 1] = {tonumber(n), tonumber(w), tonumber(p)}
	end
	if tonumber(f[1]) ~= epoch then
		s.applied, s.known, s.read_at, s.balance_w, s.balance_p = s.seq, false, 0, 0, 0
		s.open_w, s.open_p, s.closed = 0, 0, {}
	end
	return s
end)()

-- field_of returns a field of the user, or false. The scripts make do with few commands,
-- because the user of the gateway may have no others.
local function field_of(name) return call('HMGET', USER, name)[1] end

local function keep(until_) state.keep = math.max(state.keep, until_) end

local function save()
	local s = state
	local closed = {}
	for i, c in ipairs(s.closed) do closed[i] = text(c[1]) .. ' ' .. text(c[2]) .. ' ' .. text(c[3]) end
	local f = {
		'epoch', text(epoch), 'seq', text(s.seq), 'applied', text(s.applied),
		'balance', s.known and text(s.balance_w) .. ' ' .. text(s.balance_p) or '', 'read_at', text(s.read_at),
		'held', text(s.held_w) .. ' ' .. text(s.held_p), 'open', text(s.open_w) .. ' ' .. text(s.open_p),
		'closed', table.concat(closed, ' '), 'keep', text(s.keep),
	}
	for field, a in pairs(s.accounts) do
		if a.stands then
			f[#f + 1] = field
			f[#f + 1] = table.concat({text(a.start), text(a.spent_w), text(a.spent_p), text(a.held_w), text(a.held_p)}, ' ')
		end
	end
	call('HSET', USER, unpack(f))
	local last = call('ZRANGE', LEASES, -1, -1, 'WITHSCORES')
	local till = math.max(s.keep, tonumber(last[2]) or 0) + LAPSED_MEMORY
	call('PEXPIREAT', USER, text(till))
	call('PEXPIREAT', LEASES, text(till))
	call('PEXPIREAT', LAPSED, text(till))
end

-- Windows and accounts. The field of an account is `budget:`, the first letter of the
-- window, a colon and the key.

-- day_number counts the days from 1970 to the first day of a month. The months are counted
-- from March, so that a leap day is the last day of a year.
local function day_number(year, month)
	if month <= 2 then year, month = year - 1, month + 12 end
	return 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400) + floor((153 * (month - 3) + 2) / 5) - 719468
end

local function month_bounds(t)
	local days = floor(t / DAY)
	local year = 1970 + floor(days / 365.2425)
	while day_number(year, 1) > days do year = year - 1 end
	while day_number(year + 1, 1) <= days do year = year + 1 end
	local month = 12
	while day_number(year, month) > days do month = month - 1 end
	local after = month == 12 and day_number(year + 1, 1) or day_number(year, month + 1)
	return day_number(year, month) * DAY, after * DAY
end

local function bounds(window, t)
	if window == 'm' then return month_bounds(t) end
	local length = window == 'h' and HOUR or DAY
	local start = t - t % length
	return start, start + length
end

local function window_of(field) return string.sub(field, 8, 8) end

local function account(field)
	local a = state.accounts[field]
	if a then return a end
	a = {start = 0, spent_w = 0, spent_p = 0, held_w = 0, held_p = 0}
	local start, sw, sp, hw, hp = string.match(field_of(field) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
	if start then
		a.start, a.stands = tonumber(start), true
		a.spent_w, a.spent_p, a.held_w, a.held_p = tonumber(sw), tonumber(sp), tonumber(hw), tonumber(hp)
	end
	state.accounts[field] = a
	return a
end

-- turn begins a new window if the old one has ended. See account.turn in Go.
local function turn(a, field)
	local start, ends = bounds(window_of(field), now)
	if start > a.start then
		a.start, a.spent_w, a.spent_p = start, 0, 0
	elseif a.start > ends then
		a.start = start
	elseif a.start == ends then
		local _
		_, ends = bounds(window_of(field), a.start)
	end
	return ends
end

local function account_for(field)
	local a = account(field)
	a.stands = true
	keep(turn(a, field))
	return a
end

-- Holds. The field of a hold is `hold:` and the ID. Its value is the amount, and the fields
-- of its accounts.

local function put(id, w, p, fields)
	if not field_of('hold:' .. id) then
		local value = text(w) .. ' ' .. text(p)
		for _, field in ipairs(fields) do value = value .. ' ' .. field end
		call('HSET', USER, 'hold:' .. id, value)
		call('ZREM', LAPSED, id)
		state.held_w, state.held_p = add(state.held_w, state.held_p, w, p)
		for _, field in ipairs(fields) do
			local a = account_for(field)
			a.held_w, a.held_p = add(a.held_w, a.held_p, w, p)
		end
	end
	call('ZADD', LEASES, text(now + lease), id)
end

-- remove takes a hold away. It returns its amount, or nothing if there is none.
local function remove(id)
	local value = field_of('hold:' .. id)
	if not value then return nil end
	call('HDEL', USER, 'hold:' .. id)
	call('ZREM', LEASES, id)
	local w, p, rest = string.match(value, '^(%d+) (%d+)(.*)$')
	w, p = tonumber(w), tonumber(p)
	state.held_w, state.held_p = sub(state.held_w, state.held_p, w, p)
	for field in string.gmatch(rest, '%S+') do
		local a = account_for(field)
		a.held_w, a.held_p = sub(a.held_w, a.held_p, w, p)
	end
	return w, p
end

-- book adds what was settled now, and reports whether only a reading can dissolve it.
local function book(w, p)
	if (w == 0 and p == 0) or (not state.known and #state.closed == 0) then return 0 end
	state.open_w, state.open_p = add_capped(state.open_w, state.open_p, w, p)
	return 1
end

-- expire ends the holds whose lease has run out.
local function expire()
	call('ZREMRANGEBYSCORE', LAPSED, '-inf', text(now))
	for _, id in ipairs(call('ZRANGE', LEASES, '-inf', text(now), 'BYSCORE')) do
		local w, p = remove(id)
		if w then
			book(w, p)
		else
			call('ZREM', LEASES, id) -- the key with the holds was evicted
		end
		if call('ZCARD', LAPSED) < MAX_HOLDS then
			call('ZADD', LAPSED, text(now + LAPSED_MEMORY), id)
			keep(now + LAPSED_MEMORY)
		end
	end
end

-- fields reads the rest of ARGV: the fields of accounts.
local function fields_from(first)
	local fields = {}
	for i = first, #ARGV do fields[#fields + 1] = ARGV[i] end
	return fields
end
