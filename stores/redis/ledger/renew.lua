-- ARGV: ID, whole, parts, 1 to restore; then the fields of the accounts.

local id, w, p, restore = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'

expire()
keep(now + IDLE_MEMORY)

local held = 0
if restore or field_of('hold:' .. id) or call('ZREM', LAPSED, id) == 1 then
	put(id, w, p, fields_from(9))
	held = 1
end
save()
return {number, epoch, waits, held}
