# runsfleet: ends this instance when its agent gives no sign of life, or when it lives longer than
# any job may. The system runs it each minute; it depends on nothing but the file that the agent
# touches.
$data = "$env:ProgramData\runsfleet"
$booted = (Get-CimInstance Win32_OperatingSystem).LastBootUpTime
$now = Get-Date
$alive = ($now - $booted).TotalSeconds
$beat = (Get-Item -LiteralPath #HEARTBEAT# -ErrorAction SilentlyContinue).LastWriteTime
$why = ''
if (-not $beat -or $beat -lt $booted) {
  if ($alive -gt #START#) { $why = 'the agent never gave a sign of life' }
} elseif (($now - $beat).TotalSeconds -gt #SILENCE#) {
  $why = 'no sign of life from the agent'
}
# twice in a row, since the clock of a young machine jumps
$again = Test-Path -LiteralPath "$data\silent"
Remove-Item -Force -LiteralPath "$data\silent" -ErrorAction SilentlyContinue
if ($why -and -not $again) {
  New-Item -ItemType File -Force -Path "$data\silent" | Out-Null
  $why = ''
}
if ($alive -gt #LIFETIME#) { $why = 'longer than any job may be' }
if ($why) {
  $text = "runsfleet watchdog: $why; alive for $([int] $alive) s, last sign of life: $beat"
  Add-Content -Path "$data\watchdog.log" -Value "$($now.ToString('o')) $text"
  & "$env:SystemRoot\System32\shutdown.exe" /s /f /t 0 /c $text
}
