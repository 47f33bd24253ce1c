-- Asks tollgate who a request comes from, and whether it may pass.
--
-- In a frontend: `http-request lua.tollgate <URL of the auth endpoint>`. Afterwards
-- the variable txn.tollgate holds "pass", "sign_in", "refused" or "unavailable", and
-- the request carries the identity headers that tollgate answered, and no other.

local identity = {
	"x-user-id", "x-user-name", "x-user-email", "x-user-balance", "x-user-quota",
	"x-user-used-quota", "x-user-balance-age", "x-user-balance-state",
}

-- The ticket's names. Every other cookie of tollgate has one of them and a suffix.
local ticket_names = { "tollgate", "__Host-tollgate", "__Secure-tollgate" }
local suffixes = { [""] = true, ["-2"] = true, ["-recent"] = true, ["-signed-out"] = true }

-- How long the answer may take, in milliseconds.
local timeout = 1000

-- Some servers take X_User.Id for X-User-Id: names are compared in one spelling.
local function fold(name)
	return (name:lower():gsub("[^a-z0-9]+", "-"))
end

local is_identity = {}
for _, name in ipairs(identity) do
	is_identity[fold(name)] = true
end

-- HAProxy's tables of header values begin at 0.
local function values(list)
	local all = {}
	for i = 0, #list do
		all[#all + 1] = list[i]
	end
	return all
end

-- A header that Connection names would be dropped on the way to the application.
local function names_identity(lines)
	for _, line in ipairs(lines) do
		for token in line:gmatch("[^,%s]+") do
			if is_identity[fold(token)] then
				return true
			end
		end
	end
	return false
end

local function is_own_cookie(name)
	for _, ticket in ipairs(ticket_names) do
		local suffix = name:sub(#ticket + 1)
		if name:sub(1, #ticket) == ticket and (suffixes[suffix] or suffix:find("^%-login%-")) then
			return true
		end
	end
	return false
end

-- The application gets every cookie but those of tollgate.
local function other_cookies(lines)
	local kept = {}
	for _, line in ipairs(lines) do
		for cookie in line:gmatch("[^;]+") do
			cookie = cookie:match("^%s*(.-)%s*$")
			if cookie ~= "" and not is_own_cookie(cookie:match("^[^=]*"):match("^(.-)%s*$")) then
				kept[#kept + 1] = cookie
			end
		end
	end
	return table.concat(kept, "; ")
end

local function set_or_remove(http, name, value)
	http:req_del_header(name)
	if value ~= nil and value ~= "" then
		http:req_add_header(name, value)
	end
end

local function ask(url, original, cookies)
	local headers = { ["x-forwarded-uri"] = { original } }
	if #cookies > 0 then
		headers["cookie"] = cookies
	end
	local asked, answer = pcall(function()
		return core.httpclient():head({ url = url, headers = headers, timeout = timeout })
	end)
	if not asked or answer == nil then
		return { status = 0, headers = {} }
	end
	return answer
end

local function verdict(answer)
	local reason = answer.headers["tollgate-reason"]
	if answer.status == 200 then
		return "pass"
	elseif answer.status == 401 then
		return "sign_in"
	elseif answer.status == 403 and reason ~= nil and reason[0] ~= "unavailable" then
		return "refused"
	end
	return "unavailable"
end

core.register_action("tollgate", { "http-req" }, function(txn, url)
	local http = txn.http
	local received = http:req_get_headers()
	local cookies = {}
	for name, list in pairs(received) do
		if is_identity[fold(name)] then
			http:req_del_header(name)
		elseif name == "connection" and names_identity(values(list)) then
			http:req_del_header(name)
		elseif name == "cookie" then
			cookies = values(list)
		end
	end

	local answer = ask(url, txn.f:pathq(), cookies)
	local decided = verdict(answer)
	if decided == "pass" then
		for _, name in ipairs(identity) do
			local given = answer.headers[name]
			set_or_remove(http, name, given and given[0])
		end
		set_or_remove(http, "cookie", other_cookies(cookies))
	end
	txn:set_var("txn.tollgate", decided)
end, 1)
