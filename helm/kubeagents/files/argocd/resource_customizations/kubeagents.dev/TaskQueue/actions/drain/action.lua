obj.spec.closed = true
return obj
