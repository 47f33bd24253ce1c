-- begin notes that a reading of the balance begins now. While the shelf waits there is no
-- ticket: settlements of requests that were not reported yet could be missed.

if waits > 0 then return {number, epoch, waits, 0, now} end

expire()
keep(now + IDLE_MEMORY)

state.seq = state.seq + 1
local closed = state.closed
closed[#closed + 1] = {state.seq, state.open_w, state.open_p}
state.open_w, state.open_p = 0, 0
if #closed > MAX_CLOSED then
	closed[2][2], closed[2][3] = add_capped(closed[2][2], closed[2][3], closed[1][2], closed[1][3])
	table.remove(closed, 1)
end
save()
return {number, epoch, waits, state.seq, now}
